-- Put the job of one failure record back on its queue, and remove the record.
--
-- USES read
-- KEYS failed queue queues producer
-- ARGV entry payload name sequence remember
--
--   entry  the record's bytes, by which it is found; never its place, which moves
--
-- Returns {OK}, {DUP} when this request was carried out before, {MOVED} when the record is gone,
-- {BADKEY, key}. O(records).
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
if not fits(failed, "list") then return {"BADKEY", failed} end
if not fits(queue, "list") then return {"BADKEY", queue} end
if not fits(queues, "set") then return {"BADKEY", queues} end
if redis.call("LREM", failed, 1, entry) == 0 then return {"MOVED"} end
redis.call("RPUSH", queue, payload)
redis.call("SADD", queues, name)
redis.call("SET", producer, sequence, "EX", remember)
return {"OK"}
