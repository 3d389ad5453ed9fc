-- From which end of a long list a record is soon found: those that operators choose are the newest as
-- a rule, and who goes through all of them begins with the oldest.
local function nearer_end(list, entry) -- returns what LREM takes: 1 from the head, -1 from the tail
  if redis.call("LPOS", list, entry, "MAXLEN", 100) then return 1 end
  return redis.call("LPOS", list, entry, "RANK", -1, "MAXLEN", 10000) and -1 or 1
end
