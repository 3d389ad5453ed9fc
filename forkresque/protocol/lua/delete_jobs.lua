-- Delete equal jobs from a queue, whichever way they are spelled.
--
-- KEYS queue
-- ARGV count gone spelling*
--
--   count  how many at most: the nearest to the head, or to the tail if negative
--   gone   what stands for a deleted job until the end of this script; no payload
--
-- Returns how many of each spelling there were. O(jobs × spellings), however many are deleted.
local most, nearest = math.abs(tonumber(count)), tonumber(count) < 0 and -1 or 1
local found, which, places = {}, {}, {}
for i = first_spelling, #ARGV do
  table.insert(found, 0)
  for _, place in ipairs(redis.call("LPOS", queue, ARGV[i], "RANK", nearest, "COUNT", most)) do
    which[place] = #found
    table.insert(places, place)
  end
end
table.sort(places, function(one, other) return (one - other) * nearest < 0 end)

redis.pcall("SREM", queue, gone) -- any attempt to write opens the script to the rest when memory is full
local number = math.min(most, #places)
for turn = 1, number do
  local place = places[turn]
  redis.call("LSET", queue, place, gone)
  found[which[place]] = found[which[place]] + 1
end
if number > 0 then redis.call("LREM", queue, nearest * number, gone) end
return found
