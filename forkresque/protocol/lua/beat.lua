-- Renew a master's lease and its workers' pings.
--
-- KEYS lease masters workers kids ping_and_started*
-- ARGV master value lease_ms ping_ttl since worker_and_sign*
--
--   ping_and_started  of each worker
--   worker_and_sign   of each worker: its id, and the ping's new value
--   since             what `started` says of a worker that a stranger has removed
--
-- Only workers that are still in `kids` are renewed, so a late beat revives nobody.
-- Returns {OK, ids that a stranger had removed and that are back now...} or {STOLEN}. O(workers).
local current = redis.call("GET", lease)
if current and current ~= value then return {"STOLEN"} end
redis.call("PEXPIRE", lease, lease_ms) -- any write opens the script to the rest when memory is full
redis.call("SET", lease, value, "PX", lease_ms)
redis.call("SADD", masters, master)
local answer = {"OK"}
for i = 0, #KEYS - first_ping_and_started, 2 do
  local worker, sign = ARGV[first_worker_and_sign + i], ARGV[first_worker_and_sign + i + 1]
  if redis.call("SISMEMBER", kids, worker) == 1 then
    redis.call("SET", KEYS[first_ping_and_started + i], sign, "EX", ping_ttl)
    if redis.call("SADD", workers, worker) == 1 then
      redis.call("SET", KEYS[first_ping_and_started + i + 1], since, "NX")
      table.insert(answer, worker)
    end
  end
end
return answer
