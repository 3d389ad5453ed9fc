-- Free the lock of a job that was deleted from its queue, if no equal one waits there any more.
--
-- USES read
-- KEYS lock queue
-- ARGV brief spelling*
--
--   brief     seconds; a lock that has no more left ends soon, and may be that of a job on its way
--   spelling  of the job as it may wait
--
-- Returns 1 when it was freed, else 0. O(jobs × spellings).
if kind(lock) ~= "string" then return 0 end
local left = redis.call("TTL", lock)
if left >= 0 and left <= tonumber(brief) then return 0 end
if kind(queue) == "list" then
  for i = first_spelling, #ARGV do
    if redis.call("LPOS", queue, ARGV[i]) then return 0 end
  end
end
return redis.call("DEL", lock)
