-- Bring back the job of a worker that is gone, and forget the worker.
--
-- USES read slot forget
-- KEYS slot record last owner workers ping started processed_by failures_by kids lease own_lease suspects queues queue failures failed
-- ARGV worker expected claim heed_lease suspect limit remember policy name poison entry
--
--   expected    the token that the caller saw in the slot, or "" when it was empty
--   claim       which process carried the id: master, pid and start
--   heed_lease  "1": do nothing while the master's or the worker's own lease stands
--   suspect     field of `suspects` to raise, or "" when the job is not to blame; it holds the
--               number of deaths and the second of the first
--   limit       how many deaths are too many; `remember` is how long, in seconds, they count
--   policy      "requeue" to the head of `queue`, or "fail"
--   poison      failure record for the death that was one too many
--   entry       failure record for policy "fail"
--
-- Returns {REQUEUED}, {FAILED}, {POISON}, {NONE} when no job was in hand, {ALIVE}, {CHANGED} when
-- the slot or the owner is no longer what the caller saw, {BADKEY, key}. Any number of callers
-- have one outcome. O(1).
if (redis.call("GET", owner) or "") ~= claim then return {"CHANGED"} end
if heed_lease == "1" and redis.call("EXISTS", lease, own_lease) > 0 then return {"ALIVE"} end
local held = redis.call("GET", slot)
if (held and string.match(held, "^[^\n]*") or "") ~= expected then return {"CHANGED"} end
if not held then
  forget()
  return {"NONE"}
end
if not fits(failed, "list") then return {"BADKEY", failed} end
if not fits(queue, "list") then policy = "fail" end -- it cannot go back, and must not block others

redis.call("DEL", slot, own_lease) -- the first write frees memory, so a full Redis still recovers
redis.call("SET", last, "-" .. expected, "EX", 3600)
local deaths = 0
if suspect ~= "" then
  local now, known = tonumber(redis.call("TIME")[1]), redis.pcall("HGET", suspects, suspect)
  local count, since = string.match(type(known) == "string" and known or "", "^(%d+) (%d+)$")
  if not count or now - since > tonumber(remember) then count, since = 0, now end
  deaths = count + 1
  redis.pcall("HSET", suspects, suspect, deaths .. " " .. since)
  redis.pcall("EXPIRE", suspects, remember)
end
local answer = "REQUEUED"
if policy == "fail" then
  answer = "FAILED"
  redis.call("RPUSH", failed, entry)
elseif deaths >= tonumber(limit) then
  answer = "POISON"
  redis.pcall("HDEL", suspects, suspect)
  redis.call("RPUSH", failed, poison)
else
  local _, raw = held_job(held)
  redis.call("LPUSH", queue, raw)
  redis.pcall("SADD", queues, name)
end
if answer ~= "REQUEUED" then redis.pcall("INCR", failures) end
forget()
return {answer}
