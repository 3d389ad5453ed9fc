-- Bring back the job of a worker that is gone, and forget the worker.
--
-- USES read slot forget audit unlock fail
-- KEYS slot record last owner workers ping started processed_by failures_by kids lease own_lease suspects queues queue failures failed failed_lists audit locks lock*
-- ARGV worker expected claim heed_lease suspect limit remember policy name poison entry foreign keep failed_name
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
--   foreign     "1": the caller found this very job in the failed list, put there by a foreign tool
--               that removed the worker; if it is removed still, the job has its end
--   locks       hash  the worker's job locks, key to value; `lock*` are the keys, as the caller saw
--               them. A lock that still is the worker's is freed
--   audit       stream  see settle
--   failed      list    failure records; failed_lists and failed_name: see parts/fail.lua
--
-- Returns {REQUEUED}, {FAILED}, {POISON}, {FOREIGN}, {NONE} when no job was in hand, {ALIVE}, {CHANGED} when
-- the slot, the locks or the owner are no longer what the caller saw, {BADKEY, key}. Any number of callers
-- have one outcome. O(locks).
if (redis.call("GET", owner) or "") ~= claim then return {"CHANGED"} end
if heed_lease == "1" and redis.call("EXISTS", lease, own_lease) > 0 then return {"ALIVE"} end
local held = redis.call("GET", slot)
if (held and string.match(held, "^[^\n]*") or "") ~= expected then return {"CHANGED"} end
if redis.call("HLEN", locks) ~= #KEYS - first_lock + 1 then return {"CHANGED"} end
if not held then
  unlock(locks, first_lock)
  forget()
  return {"NONE"}
end
local misfit = misfit_to_fail(failed, failed_name)
if misfit then return {"BADKEY", misfit} end
if not fits(queue, "list") then policy = "fail" end -- it cannot go back, and must not block others

redis.call("DEL", slot, own_lease) -- the first write frees memory, so a full Redis still recovers
redis.call("SET", last, "-" .. expected, "EX", 3600)
local _, raw = held_job(held)
if foreign == "1" and redis.pcall("SISMEMBER", workers, worker) == 0 then
  policy, suspect = "foreign", ""
end
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
if policy == "foreign" then
  answer = "FOREIGN"
elseif policy == "fail" then
  answer = "FAILED"
  fail(failed, failed_name, entry)
elseif deaths >= tonumber(limit) then
  answer = "POISON"
  redis.pcall("HDEL", suspects, suspect)
  fail(failed, failed_name, poison)
else
  redis.call("LPUSH", queue, raw)
  redis.pcall("SADD", queues, name)
end
if answer == "FAILED" or answer == "POISON" then redis.pcall("INCR", failures) end
tell(answer, expected, name, raw)
unlock(locks, first_lock)
forget()
return {answer}
