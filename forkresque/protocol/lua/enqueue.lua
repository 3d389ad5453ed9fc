-- Put a job on its queue, once for each request of a producer.
--
-- USES read
-- KEYS queue queues producer
-- ARGV payload name sequence remember front
--
--   queue     list    payloads
--   queues    set     queue names
--   producer  string  the last request of this producer that was carried out; lives
--                     `remember` seconds. A producer asks one thing at a time and numbers
--                     its requests, so one number is all there is to remember
--   front     "1": at the head
--
-- Returns {OK, length}, {DUP} when this request was carried out before, {BADKEY, key}. O(1).
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
if not fits(queue, "list") then return {"BADKEY", queue} end
if not fits(queues, "set") then return {"BADKEY", queues} end
local length = redis.call(front == "1" and "LPUSH" or "RPUSH", queue, payload)
redis.call("SADD", queues, name)
redis.call("SET", producer, sequence, "EX", remember)
return {"OK", length}
