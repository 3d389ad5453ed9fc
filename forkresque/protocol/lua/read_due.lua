-- Read the first jobs of some seconds, of as many seconds as the limits allow. Changes nothing.
--
-- USES read
-- KEYS bucket*
-- ARGV jobs bytes
--
--   bucket*  list  the jobs due at one second, oldest first
--   jobs     how many at most
--   bytes    after about so many there is enough: ten jobs more at most, and one in any case
--
-- Returns for each bucket that was looked at its first jobs, or "" for one that is no list.
-- O(jobs and buckets).
local found = {}
local left, room = tonumber(jobs), tonumber(bytes)
for i = first_bucket, #KEYS do
  if left <= 0 or room <= 0 then return found end
  local jobs = {}
  while left > 0 and room > 0 do
    local page = redis.pcall("LRANGE", KEYS[i], #jobs, #jobs + math.min(left, 10) - 1)
    if page.err and not starts(page.err, "WRONGTYPE") then return page end
    if page.err then jobs = "" end
    for _, raw in ipairs(page) do
      table.insert(jobs, raw)
      room = room - #raw
    end
    left = left - #page
    if #page < 10 then break end
  end
  table.insert(found, jobs)
end
return found
