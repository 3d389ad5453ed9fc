-- Delete equal jobs from a queue, whichever way they are spelled.
--
-- KEYS queue
-- ARGV count spelling*
--
--   count  how many at most: the nearest to the head, or to the tail if negative; 0 for all
--
-- Returns how many of each spelling there were. O(jobs × spellings), and that as many times as jobs
-- are deleted of which more than one spelling waits.
local found = {}
local left, nearest = math.abs(tonumber(count)), tonumber(count) < 0 and -1 or 1
for i = first_spelling, #ARGV do
  table.insert(found, count == "0" and redis.call("LREM", queue, 0, ARGV[i]) or 0)
end
while left > 0 do
  local best, at, others
  for i = first_spelling, #ARGV do
    local place = redis.call("LPOS", queue, ARGV[i], "RANK", nearest)
    others = others or (place and best)
    if place and (not best or (place - at) * nearest < 0) then best, at = i, place end
  end
  if not best then break end
  local gone = redis.call("LREM", queue, nearest * (others and 1 or left), ARGV[best])
  local which = best - first_spelling + 1
  found[which] = found[which] + gone
  left = others and left - gone or 0
end
return found
