-- Take the head of the first queue that has one into the slot.
--
-- Expects the keys workers lease pause paused suspects slot record list*, and the arguments
-- worker order head name_and_label* (each queue's name, and the name as JSON text). Further keys may
-- follow those of the queues.

local bad = "" -- a key of the wrong type that had to be skipped
local place -- of the queue that a job was taken from
local lists = (#ARGV - first_name_and_label + 1) / 2

-- Of these keys the lease alone is there as a rule: counted four times, it is told from the others.
local function hindrance()
  if redis.pcall("SISMEMBER", workers, worker) == 0 then return "UNREG" end
  local there = redis.call("EXISTS", lease, lease, lease, lease, pause, paused, suspects)
  if there < 4 then return "ORPHAN" end
  if there == 4 then return nil, {}, 0 end
  if all_paused() then return "PAUSED" end
  return nil, resting_queues(), redis.call("EXISTS", suspects)
end

local function take(token)
  local why, resting, suspected = hindrance()
  if why then return {why} end
  local next_place = order ~= "" and string.gmatch(order, "%d+")
  for turn = 0, lists - 1 do
    local i = next_place and tonumber(next_place()) or turn
    local name = ARGV[first_name_and_label + 2 * i]
    if not resting[name] then
      local raw = redis.pcall("LPOP", KEYS[first_list + i])
      if type(raw) == "table" then
        -- A queue of another type is passed over. Anything else (a primary that is one no more, a
        -- missing right) is true of all queues, and an answer of its own.
        if not starts(raw.err, "WRONGTYPE") then return raw end
        bad = KEYS[first_list + i]
      elseif raw then
        place = i
        redis.call("SET", slot, token .. "\n" .. #name .. "\n" .. name .. raw)
        local label = ARGV[first_name_and_label + 2 * i + 1]
        redis.pcall("SET", record, head .. label .. ',"payload":' .. shown(raw) .. "}")
        return {"JOB", name, raw, suspected}
      end
    end
  end
  return {"EMPTY"}
end
