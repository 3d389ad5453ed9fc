-- Put a job where the scheduler finds it when its second has come.
--
-- USES read
-- KEYS bucket schedule timestamps producer twin*
-- ARGV payload second unique sequence remember
--
--   bucket      list        jobs due at `second`
--   schedule    sorted set  seconds at which something is due
--   timestamps  set         the seconds at which this very payload is due
--   unique      "1": refuse a second equal job for the same second, as node-resque does
--   twin*       set         the same as `timestamps` for the job as other clients spell it
--
-- Returns {OK}, {DUP} when this request was carried out before, {EXISTS}, {BADKEY, key}. O(log n).
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
if not fits(bucket, "list") then return {"BADKEY", bucket} end
if not fits(schedule, "zset") then return {"BADKEY", schedule} end
if not fits(timestamps, "set") then return {"BADKEY", timestamps} end
local mark = "delayed:" .. second
if unique == "1" then
  if redis.call("SISMEMBER", timestamps, mark) == 1 then return {"EXISTS"} end
  for i = first_twin, #KEYS do
    if redis.pcall("SISMEMBER", KEYS[i], mark) == 1 then return {"EXISTS"} end
  end
end
redis.call("RPUSH", bucket, payload)
redis.call("SADD", timestamps, mark)
redis.call("ZADD", schedule, second, second)
redis.call("SET", producer, sequence, "EX", remember)
return {"OK"}
