-- Take a job lock for the worker that performs the job, in node-resque's form.
--
-- USES read
-- KEYS lock locks slot
-- ARGV token value seconds
--
--   lock   string with a TTL  `<epoch second at which it ends>.<nonce>`; node writes the number only
--   locks  hash    the worker's locks, key to value: whoever settles or recovers the job frees them
--   slot   string  the job in hand, which must be that of `token`
--
-- Returns 1 when the lock is ours, 0 when another holds it, -1 when the job is not in hand any
-- more. Sending it again gives the same answer. O(1).
local held = redis.call("GET", slot)
if not held or not starts(held, token .. "\n") then return -1 end
if not fits(locks, "hash") then return 0 end -- a lock that nobody would free
local found = redis.pcall("GET", lock)
if type(found) == "table" then return 0 end
if found == value then return 1 end
if found then
  -- A lock without an end of its own (some client died between SET and EXPIRE) ends by its number;
  -- any other one ends by its own, whatever the clock of who wrote the number says.
  local ends = tonumber(string.match(found, "^%d+") or "")
  if not ends or ends > tonumber(redis.call("TIME")[1]) or redis.call("TTL", lock) >= 0 then
    return 0
  end
end
redis.call("SET", lock, value, "EX", seconds)
redis.call("HSET", locks, lock, value)
if redis.call("TTL", locks) < tonumber(seconds) then redis.call("EXPIRE", locks, seconds) end
return 1
