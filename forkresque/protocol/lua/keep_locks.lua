-- Have the job locks of one worker last, for its job goes on.
--
-- KEYS locks lock*
-- ARGV seconds
--
--   locks  hash  the worker's locks, key to value
--   lock*  string with a TTL  each of them: only one that still has the value is kept, for at
--          least `seconds` from now on. One that has run out is not taken again
--
-- Returns how many were kept, or last longer anyhow. Sending it again is safe. O(locks).
local kept = 0
for i = first_lock, #KEYS do
  local value = redis.pcall("HGET", locks, KEYS[i])
  if type(value) == "string" and redis.pcall("GET", KEYS[i]) == value then
    if redis.call("TTL", KEYS[i]) < tonumber(seconds) then redis.call("EXPIRE", KEYS[i], seconds) end
    kept = kept + 1
  end
end
if kept > 0 and redis.call("TTL", locks) < tonumber(seconds) then
  redis.call("EXPIRE", locks, seconds)
end
return kept
