-- Take or keep the lock of a job that waits, in node-resque's form.
--
-- KEYS lock home
-- ARGV value seconds take
--
--   lock     string with a TTL  `<epoch second at which it ends>.<nonce>`; node writes the number only
--   home     any key of the namespace: so a Cluster refuses a lock that is not in its slot
--   seconds  how long it is to last from now on; 0 frees it
--   take     "1": take it if nobody has it; else only what has this `value` is touched
--
-- Returns 1 when the lock is ours, or was and is freed, else 0. Sending it again gives the same
-- answer, but for a lock that was freed. O(1).
assert(home)
local found = redis.pcall("GET", lock)
if type(found) == "table" then return 0 end
if found == value then
  redis.call("EXPIRE", lock, seconds) -- of 0 seconds deletes
  return 1
end
if take ~= "1" then return 0 end
if found then
  -- Some client died between SETNX and EXPIRE: then it ends by its number, else by itself.
  local ends = tonumber(string.match(found, "^%d+") or "")
  if not ends or ends >= tonumber(redis.call("TIME")[1]) or redis.call("TTL", lock) >= 0 then
    return 0
  end
end
redis.call("SET", lock, value, "EX", seconds)
return 1
