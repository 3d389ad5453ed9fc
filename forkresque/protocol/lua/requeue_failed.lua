-- Put the job of one failure record back on its queue, and remove the record.
--
-- USES read nearer
-- KEYS queue queues producer failed*
-- ARGV entry payload name sequence remember seek
--
--   failed*  list  where the record may be; it is taken from the first that has it
--   entry    the record's bytes, by which it is found; never its place, which moves
--   seek     1 to look for it from the head of a list, -1 from the tail, 0 from where it may be near
--
-- Returns {OK}, {DUP} when this request was carried out before, {MOVED} when the record is gone,
-- {BADKEY, key} with nothing changed. O(records).
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
for i = first_failed, #KEYS do
  if not fits(KEYS[i], "list") then return {"BADKEY", KEYS[i]} end
end
if not fits(queue, "list") then return {"BADKEY", queue} end
if not fits(queues, "set") then return {"BADKEY", queues} end
local found = 0
for i = first_failed, #KEYS do
  if found == 0 then
    local from = seek == "0" and nearer_end(KEYS[i], entry) or seek
    found = redis.call("LREM", KEYS[i], from, entry)
  end
end
if found == 0 then return {"MOVED"} end
redis.call("RPUSH", queue, payload)
redis.call("SADD", queues, name)
redis.call("SET", producer, sequence, "EX", remember)
return {"OK"}
