-- Note a failed attempt of the job in hand, as node-resque's and Ruby's resque-retry keep it.
--
-- USES read
-- KEYS slot counter failure
-- ARGV token attempt keep record
--
--   slot     string  the job in hand, which must be that of `token`
--   counter  string  failures so far less one. `attempt` is what it is to be now: one more than
--                    the caller has read, so that sending it again counts nothing twice
--   failure  string  `record`, what went wrong; both live `keep` seconds
--
-- Returns the counter, which an equal job may have counted further, or -1 when the job is not in
-- hand any more and nothing was changed. O(1).
local held = redis.call("GET", slot)
if not held or not starts(held, token .. "\n") then return -1 end
local found = redis.pcall("GET", counter)
local counted = math.max(type(found) == "string" and tonumber(found) or -1, tonumber(attempt))
redis.call("DEL", failure) -- the first write frees memory, so a full Redis still counts
redis.call("SET", counter, string.format("%d", counted), "EX", keep)
redis.call("SET", failure, record, "EX", keep)
return counted
