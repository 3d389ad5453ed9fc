-- Take the head of the first queue that has one into the slot.
--
-- Expects the keys workers lease pause paused suspects slot record list*, and the arguments
-- worker order head name_and_label* (each queue's name, and the name as JSON text). Further keys may
-- follow those of the queues.

local bad = "" -- a key of the wrong type that had to be skipped
local lists = (#ARGV - first_name_and_label + 1) / 2

local function hindrance()
  if redis.pcall("SISMEMBER", workers, worker) == 0 then return "UNREG" end
  if redis.call("EXISTS", lease) == 0 then return "ORPHAN" end
  if all_paused() then return "PAUSED" end
end

local function is_utf8(raw)
  if not string.find(raw, "[\128-\255]") then return true end
  local rest = string.gsub(raw, "[\194-\223][\128-\191]", "")
  rest = string.gsub(rest, "[\224-\239][\128-\191][\128-\191]", "")
  rest = string.gsub(rest, "[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  return not string.find(rest, "[\128-\255]")
end

-- The record is a shadow for other clients, who parse it: only a payload that is JSON goes in
-- as it is. Above 4 KB the check would cost more than the job; there the shape must do.
local function shown(raw)
  local fine
  if #raw <= 4096 then
    local lax = cjson.decode_invalid_numbers() -- it is everybody's setting, so it is put back
    cjson.decode_invalid_numbers(false)
    fine = pcall(cjson.decode, raw)
    cjson.decode_invalid_numbers(lax)
  else
    fine = string.sub(raw, 1, 1) == "{" and string.sub(raw, -1) == "}"
  end
  return fine and is_utf8(raw) and raw or '{"class":"(unreadable payload)","args":[]}'
end

local function take(token)
  local why = hindrance()
  if why then return {why} end
  local resting = resting_queues()
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
        redis.call("SET", slot, token .. "\n" .. #name .. "\n" .. name .. raw)
        local label = ARGV[first_name_and_label + 2 * i + 1]
        redis.pcall("SET", record, head .. label .. ',"payload":' .. shown(raw) .. "}")
        return {"JOB", name, raw, redis.call("EXISTS", suspects)}
      end
    end
  end
  return {"EMPTY"}
end
