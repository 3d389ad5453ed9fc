-- Count what several lists hold together. Changes nothing.
--
-- KEYS list*
-- ARGV
--
-- Returns the sum; a key of another type holds nothing. O(lists).
local sum = 0
for i = first_list, #KEYS do
  local length = redis.pcall("LLEN", KEYS[i])
  if type(length) == "number" then sum = sum + length end
end
return sum
