-- What must be left alone: everything while Ruby Resque's pause key says so, or single queues.
--
-- Expects the keys pause and paused.
local function all_paused()
  local word = redis.pcall("GET", pause)
  return type(word) == "string" and string.lower(string.match(word, "^%s*(.-)%s*$")) == "true"
end

local function resting_queues()
  local resting = {}
  local names = redis.pcall("SMEMBERS", paused)
  if not names.err then
    for _, name in ipairs(names) do resting[name] = true end
  end
  return resting
end
