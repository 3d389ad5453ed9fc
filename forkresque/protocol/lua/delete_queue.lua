-- Delete a queue with all that waits in it, or if we are to be told, the head of it.
--
-- USES read
-- KEYS queue queues
-- ARGV name tell
--
--   tell  how many of the jobs to take away and tell; 0 to delete all of them untold
--
-- Returns the payloads that are told. The queue is gone when they are fewer. Sending it again deletes
-- what has come meanwhile. O(told); what a large queue held is freed by Redis beside its work.
local jobs = {}
if tell ~= "0" and kind(queue) == "list" then jobs = redis.call("LPOP", queue, tell) end
if #jobs == tonumber(tell) and tell ~= "0" then return jobs end
redis.call("UNLINK", queue)
if fits(queues, "set") then redis.call("SREM", queues, name) end
return jobs
