-- Forget a worker that leaves in good order.
--
-- USES forget
-- KEYS slot owner workers record ping started processed_by failures_by kids
-- ARGV worker claim
--
-- Returns {OK}; {BUSY} while a job is in the slot; {CHANGED} when another process carries this
-- worker id by now. O(1).
if (redis.call("GET", owner) or claim) ~= claim then return {"CHANGED"} end
if redis.call("EXISTS", slot) == 1 then return {"BUSY"} end
forget()
return {"OK"}
