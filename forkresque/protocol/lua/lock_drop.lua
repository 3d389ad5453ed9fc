-- Free one job lock before its job ends, if it still is ours.
--
-- KEYS lock locks
-- ARGV value
--
-- Returns 1 when it was ours, else 0. O(1).
redis.call("HDEL", locks, lock)
if redis.pcall("GET", lock) ~= value then return 0 end
return redis.call("DEL", lock)
