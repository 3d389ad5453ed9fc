-- Read without ever stopping the script: a key of the wrong type counts as absent.
local function kind(key)
  return redis.call("TYPE", key).ok
end

local function fits(key, wanted)
  local found = kind(key)
  return found == wanted or found == "none"
end

local function starts(text, head)
  return string.sub(text, 1, #head) == head
end
