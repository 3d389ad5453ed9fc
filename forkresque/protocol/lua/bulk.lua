-- Put many jobs on their queues, all or none, once for each request of a producer.
--
-- USES read
-- KEYS queues producer queue*
-- ARGV sequence remember name_and_count_and_payloads*
--
--   queue*     list  for each queue: payloads
--   name_and_count_and_payloads  for each queue: its name, how many jobs, and these; at most
--              1000 in all
--   the rest   see enqueue
--
-- Returns {OK}, {DUP} when this request was carried out before, {BADKEY, key} with nothing stored.
-- O(jobs).
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
if not fits(queues, "set") then return {"BADKEY", queues} end
for i = first_queue, #KEYS do
  if not fits(KEYS[i], "list") then return {"BADKEY", KEYS[i]} end
end
local at = first_name_and_count_and_payloads
for i = first_queue, #KEYS do
  local count = tonumber(ARGV[at + 1])
  redis.call("RPUSH", KEYS[i], unpack(ARGV, at + 2, at + 1 + count))
  redis.call("SADD", queues, ARGV[at])
  at = at + 2 + count
end
redis.call("SET", producer, sequence, "EX", remember)
return {"OK"}
