-- Remove a worker of node-resque or Ruby, whether it lives or not, and record its job as failed.
--
-- USES read fail
-- KEYS record owner workers started ping heartbeats processed_by failures_by processed_by_id failures_by_id failures failed failed_lists
-- ARGV worker seen sign entry failed_name
--
--   record  string  what the worker performs; `seen` is what it held when the caller made `entry`
--           from it, the failure record of the job in hand; both "" for an idle worker
--   ping    string  the worker's sign of life; must be `sign`, unless that is ""
--   owner   string  exists for our own workers, which are recovered otherwise
--   heartbeats  hash  Ruby's signs of life, by worker
--   processed_by, failures_by  counters as node names them; the other two as Ruby does
--   failed  list    failure records; failed_lists and failed_name: see parts/fail.lua
--
-- Returns {CLEANED}; {OURS}; {CHANGED} when record or ping are others by now; {BADKEY, key}, both with
-- nothing changed. O(1).
if redis.call("EXISTS", owner) == 1 then return {"OURS"} end
local record_now = redis.pcall("GET", record)
if (type(record_now) == "string" and record_now or "") ~= seen then return {"CHANGED"} end
if sign ~= "" and redis.pcall("GET", ping) ~= sign then return {"CHANGED"} end
local misfit = entry ~= "" and misfit_to_fail(failed, failed_name)
if misfit then return {"BADKEY", misfit} end

redis.call("DEL", record, started, ping, processed_by, failures_by, processed_by_id, failures_by_id)
redis.pcall("HDEL", heartbeats, worker)
redis.pcall("SREM", workers, worker)
if entry ~= "" then
  fail(failed, failed_name, entry)
  redis.pcall("INCR", failures)
end
return {"CLEANED"}
