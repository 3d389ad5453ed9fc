-- Delete a queue with all that waits in it.
--
-- USES read
-- KEYS queue queues
-- ARGV name tell
--
--   tell  "1" to be told what waited
--
-- Returns the payloads if they are to be told, else nothing. Sending it again deletes what has come
-- meanwhile. O(jobs).
local jobs = {}
if tell == "1" and kind(queue) == "list" then jobs = redis.call("LRANGE", queue, 0, -1) end
redis.call("DEL", queue)
if fits(queues, "set") then redis.call("SREM", queues, name) end
return jobs
