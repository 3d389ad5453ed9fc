-- Put a job on its queue, once for each request of a producer.
--
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
-- Returns the queue's length, {DUP} when this request was carried out before, {BADKEY, key} with
-- nothing changed. Three commands: what type a key has is not asked but found out, and what was
-- written until then is undone. O(1).
local seen = redis.call("SET", producer, sequence, "EX", remember, "GET")
local again = seen and tonumber(seen) >= tonumber(sequence)
local known, length
if not again then
  known = redis.pcall("SADD", queues, name)
  if type(known) == "number" then
    length = redis.pcall(front == "1" and "LPUSH" or "RPUSH", queue, payload)
    if type(length) == "number" then return length end
    if known == 1 then redis.call("SREM", queues, name) end
  end
end
if seen then
  redis.call("SET", producer, seen, "EX", remember)
else
  redis.call("DEL", producer)
end
if again then return {"DUP"} end -- the SET was a write, so WAIT after it waits for the first time
local failed = length or known
if string.sub(failed.err, 1, 9) ~= "WRONGTYPE" then return failed end
return {"BADKEY", length and queue or queues}
