-- Put a delayed bucket that nobody would look at into the schedule.
--
-- A client that writes bucket and schedule by two commands, as Ruby's does, can die between them.
--
-- USES read
-- KEYS schedule bucket
-- ARGV second
--
-- Returns 1 when it was adopted, 0 when it is scheduled already or holds no jobs. O(log seconds).
if kind(bucket) ~= "list" or not fits(schedule, "zset") then return 0 end
if redis.call("ZSCORE", schedule, second) then return 0 end
return redis.call("ZADD", schedule, second, second)
