-- Count the jobs that wait in queues which may be claimed from. Changes nothing.
--
-- USES pause
-- KEYS pause paused queues list*
-- ARGV name*
--
-- Returns the number of jobs. It has read every one of the keys but those of paused queues, so a
-- client that tracks its reads hears of the next job. O(queues).
redis.call("EXISTS", queues)
if all_paused() then return 0 end
local resting = resting_queues()
local waiting = 0
for i = 0, #KEYS - first_list do
  if not resting[ARGV[first_name + i]] then
    local length = redis.pcall("LLEN", KEYS[first_list + i])
    if type(length) == "number" then waiting = waiting + length end
  end
end
return waiting
