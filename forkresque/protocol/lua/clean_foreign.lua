-- Clean up after a node-resque worker that has gone silent, as node-resque's leader would.
--
-- USES read fail
-- KEYS lock ping owner record workers started processed_by failures_by failures failed failed_lists
-- ARGV token worker sign seen entry failed_name
--
--   lock   string  the lock of node's scheduler; its value must be `token`
--   ping   string  the worker's sign of life; `sign` is what it has been all the while
--   owner  string  exists for our own workers, which are recovered otherwise
--   seen   what the record held when the caller made `entry` from it, the failure record of the
--          job in hand; both "" for an idle worker
--   failed  list   failure records; failed_lists and failed_name: see parts/fail.lua
--
-- Returns {CLEANED}; {FENCED} when we do not lead; {OURS}; {ALIVE} when ping or record have
-- changed; {BADKEY, key} with nothing changed. O(1).
if redis.call("GET", lock) ~= token then return {"FENCED"} end
if redis.call("EXISTS", owner) == 1 then return {"OURS"} end
if redis.pcall("GET", ping) ~= sign then return {"ALIVE"} end
local record_now = redis.pcall("GET", record)
if (type(record_now) == "string" and record_now or "") ~= seen then return {"ALIVE"} end
local misfit = entry ~= "" and misfit_to_fail(failed, failed_name)
if misfit then return {"BADKEY", misfit} end

redis.call("DEL", ping, record, started, processed_by, failures_by)
redis.pcall("SREM", workers, worker)
if entry ~= "" then
  fail(failed, failed_name, entry)
  redis.pcall("INCR", failures)
end
return {"CLEANED"}
