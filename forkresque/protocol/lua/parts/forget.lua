-- Remove a worker's records, as Resque does when a worker leaves.
--
-- Expects the keys workers record ping started processed_by failures_by kids owner, and the
-- argument worker.
local function forget()
  redis.pcall("SREM", workers, worker)
  redis.pcall("SREM", kids, worker)
  redis.call("DEL", record, ping, started, processed_by, failures_by, owner)
end
