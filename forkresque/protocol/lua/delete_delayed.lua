-- Delete every copy of one delayed job from some of its seconds.
--
-- USES read
-- KEYS timestamps schedule bucket*
-- ARGV payload second*
--
--   timestamps  set   the seconds at which this very payload is due; those here are taken out
--   bucket*     list  the jobs due at each `second`
--
-- A second at which nothing is due any more leaves the schedule. Returns how many there were at each
-- second; a key of another type holds none, and is left. O(jobs due at these seconds).
local found = {}
local marked, scheduled = fits(timestamps, "set"), fits(schedule, "zset")
for i = 0, #KEYS - first_bucket do
  local bucket = KEYS[first_bucket + i]
  local second = ARGV[first_second + i]
  local gone = fits(bucket, "list") and redis.call("LREM", bucket, 0, payload) or 0
  table.insert(found, gone)
  if marked then redis.call("SREM", timestamps, "delayed:" .. second) end
  if scheduled and kind(bucket) == "none" then redis.call("ZREM", schedule, second) end
end
return found
