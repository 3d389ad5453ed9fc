-- Free the job locks of a worker, each only while it is still its own.
--
-- `held` is the hash of its locks: key and value. They are KEYS from `from` on.
local function unlock(held, from)
  for i = from, #KEYS do
    local value = redis.pcall("HGET", held, KEYS[i])
    if type(value) == "string" and redis.pcall("GET", KEYS[i]) == value then
      redis.call("DEL", KEYS[i])
    end
  end
  redis.call("DEL", held)
end
