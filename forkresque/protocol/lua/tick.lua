-- Enqueue what a recurring schedule is due for, once for each moment, while we lead.
--
-- USES read
-- KEYS leader cron queues queue
-- ARGV token moment name payload
--
--   leader  string  the forkresque scheduler that leads; its value must be `token`
--   cron    string  the last moment, in epoch seconds, for which this schedule has enqueued
--
-- Returns {OK}, {SEEN} when this moment or a later one was carried out before, {FENCED} when
-- another scheduler leads, {BADKEY, key} with nothing changed. Sending it again adds nothing. O(1).
if redis.call("GET", leader) ~= token then return {"FENCED"} end
local last = tonumber(redis.call("GET", cron) or "-1") or -1
if last >= tonumber(moment) then return {"SEEN"} end
if not fits(queue, "list") then return {"BADKEY", queue} end
if not fits(queues, "set") then return {"BADKEY", queues} end
redis.call("RPUSH", queue, payload)
redis.call("SADD", queues, name)
redis.call("SET", cron, moment)
return {"OK"}
