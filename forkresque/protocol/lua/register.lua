-- Make a worker known, or known again after a stranger removed it.
--
-- USES read
-- KEYS slot owner workers ping started kids masters lease other_kids proto
-- ARGV worker master claim seen since sign ping_ttl lease_value lease_ms protocol
--
--   claim       what `owner` shall say from now on: master, pid and start of the process
--   seen        what the caller saw there; its master's set of workers is `other_kids`
--   since,sign  the values of `started` and `ping`
--   proto       string  the highest protocol number of those who keep this namespace; `protocol` is
--               the caller's
--
-- Returns {OK}; {BUSY} when an earlier process with this id left a job in the slot, which must
-- be recovered first; {CHANGED} when the owner is no longer the one that the caller saw; {PROTO,
-- number} when the namespace is kept by a newer protocol; {BADKEY, key}. O(1).
local known = redis.pcall("GET", proto)
known = type(known) == "string" and tonumber(known) or 0
if known > tonumber(protocol) then return {"PROTO", tostring(known)} end
for _, set in ipairs({workers, kids, masters, other_kids}) do
  if not fits(set, "set") then return {"BADKEY", set} end
end
local current = redis.call("GET", owner) or ""
if current ~= claim then
  if current ~= seen then return {"CHANGED"} end
  if redis.call("EXISTS", slot) == 1 then return {"BUSY"} end
  redis.call("SREM", other_kids, worker)
end
redis.call("SREM", kids, "") -- any write opens the script to the rest when memory is full
redis.call("SADD", workers, worker)
redis.call("SADD", kids, worker)
redis.call("SADD", masters, master)
redis.call("SET", owner, claim)
redis.call("SET", started, since)
redis.call("SET", proto, protocol)
redis.call("SET", ping, sign, "EX", ping_ttl)
redis.call("SET", lease, lease_value, "PX", lease_ms, "NX")
return {"OK"}
