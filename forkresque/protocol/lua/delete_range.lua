-- Delete jobs from a stretch of a queue, by their bytes.
--
-- USES read
-- KEYS queue
-- ARGV start stop gone job*
--
--   start, stop  the stretch, both included; negative from the tail
--   gone         what stands for a deleted job until the end of this script; no payload
--
-- Equal bytes outside of the stretch stay. Returns how many of each job there were. O(stretch, and
-- jobs between it and the nearer end of the queue); the caller sees to it that a stretch is short.
local found, which = {}, {}
for i = first_job, #ARGV do
  table.insert(found, 0)
  which[ARGV[i]] = #found
end
if kind(queue) == "none" then return found end
local length = redis.call("LLEN", queue)
local function place(index)
  return index < 0 and math.max(0, length + index) or index
end
local first = place(tonumber(start))
local last = tonumber(stop) < -length and -1 or math.min(length - 1, place(tonumber(stop)))
if first > last then return found end

redis.pcall("SREM", queue, gone) -- any attempt to write opens the script to the rest when memory is full
local number = 0
for i, raw in ipairs(redis.call("LRANGE", queue, first, last)) do
  local job = which[raw]
  if job then
    redis.call("LSET", queue, first + i - 1, gone)
    found[job] = found[job] + 1
    number = number + 1
  end
end
local is_nearer_head = first < length - 1 - last
if number > 0 then redis.call("LREM", queue, is_nearer_head and number or -number, gone) end
return found
