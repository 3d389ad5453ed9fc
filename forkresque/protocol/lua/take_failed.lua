-- Take failure records from one stretch of a list, and put the jobs of those back that name a queue.
--
-- USES read
-- KEYS failed queues producer queue*
-- ARGV start stop gone sequence remember record*
--
--   start, stop  the stretch, both included, counted from the head
--   gone         what stands for a taken record until the end of this script; no record
--   record*      of each its bytes, the payload, the place of its queue among queue* from 0 on, and
--                the queue's name: "" if the job is not to be put back
--
-- A record is taken as often as it is given, and only where its very bytes are. Returns {OK, number
-- ...} with the numbers, from 1, of the records that were taken; {DUP} when this request was carried
-- out before, {BADKEY, key} with nothing changed. O(stretch, and records between it and the nearer
-- end); the caller sees to it that a stretch is short.
local seen = tonumber(redis.call("GET", producer) or "-1")
if seen >= tonumber(sequence) then
  redis.call("EXPIRE", producer, remember) -- a write, so that WAIT after it waits for the first
  return {"DUP"}
end
if not fits(failed, "list") then return {"BADKEY", failed} end
if not fits(queues, "set") then return {"BADKEY", queues} end
for i = first_queue, #KEYS do
  if not fits(KEYS[i], "list") then return {"BADKEY", KEYS[i]} end
end

local which = {} -- of each record's bytes: the numbers by which it is given, the first one last
local records = (#ARGV - first_record + 1) / 4
for number = records, 1, -1 do
  local raw = ARGV[first_record + 4 * (number - 1)]
  which[raw] = which[raw] or {}
  table.insert(which[raw], number)
end

redis.pcall("SREM", failed, gone) -- any attempt to write opens the script to the rest when memory is full
local first, length = tonumber(start), redis.call("LLEN", failed)
local taken, count = {}, 0
for i, raw in ipairs(redis.call("LRANGE", failed, first, stop)) do
  local number = which[raw] and table.remove(which[raw])
  if number then
    redis.call("LSET", failed, first + i - 1, gone)
    taken[number] = true
    count = count + 1
  end
end
if count == 0 then return {"OK"} end
local is_nearer_head = first < length - 1 - tonumber(stop)
redis.call("LREM", failed, is_nearer_head and count or -count, gone)

local answer = {"OK"}
for number = 1, records do
  if taken[number] then
    local at = first_record + 4 * (number - 1)
    if ARGV[at + 3] ~= "" then
      local queue = KEYS[first_queue + ARGV[at + 2]]
      redis.call("RPUSH", queue, ARGV[at + 1])
      redis.call("SADD", queues, ARGV[at + 3])
    end
    table.insert(answer, number)
  end
end
redis.call("SET", producer, sequence, "EX", remember)
return answer
