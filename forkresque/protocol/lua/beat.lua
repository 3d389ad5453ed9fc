-- Renew a master's lease and its workers' pings.
--
-- KEYS lease masters workers kids ping*
-- ARGV master value lease_ms ping_ttl worker_and_sign*
--
--   worker_and_sign  for each ping: the worker's id, and the ping's new value
--
-- Only workers that are still in `kids` are renewed, so a late beat revives nobody.
-- Returns {OK, ids that a stranger had removed and that are back now...} or {STOLEN}. O(pings).
local current = redis.call("GET", lease)
if current and current ~= value then return {"STOLEN"} end
redis.call("PEXPIRE", lease, lease_ms) -- any write opens the script to the rest when memory is full
redis.call("SET", lease, value, "PX", lease_ms)
redis.call("SADD", masters, master)
local answer = {"OK"}
for i = 0, #KEYS - first_ping do
  local worker = ARGV[first_worker_and_sign + 2 * i]
  if redis.call("SISMEMBER", kids, worker) == 1 then
    redis.call("SET", KEYS[first_ping + i], ARGV[first_worker_and_sign + 2 * i + 1], "EX", ping_ttl)
    if redis.call("SADD", workers, worker) == 1 then table.insert(answer, worker) end
  end
end
return answer
