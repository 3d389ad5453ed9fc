-- Delete jobs from a stretch of a queue, by their bytes.
--
-- USES read
-- KEYS queue
-- ARGV start stop gone job*
--
--   start, stop  the stretch, both included; negative from the tail
--   gone         what stands for a deleted job until the end of this script; no payload
--
-- Equal bytes outside of the stretch stay. Returns how many of each job there were. O(jobs).
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
local last = tonumber(stop) < -length and -1 or math.min(length - 1, place(tonumber(stop)))

redis.call("LREM", queue, 0, gone) -- any write opens the script to the rest when memory is full
for from = place(tonumber(start)), last, 1000 do
  for i, raw in ipairs(redis.call("LRANGE", queue, from, math.min(last, from + 999))) do
    local job = which[raw]
    if job then
      redis.call("LSET", queue, from + i - 1, gone)
      found[job] = found[job] + 1
    end
  end
end
redis.call("LREM", queue, 0, gone)
return found
