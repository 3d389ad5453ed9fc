-- Where failure records go: to one list for all, or to one for each queue, of which a set knows.
--
-- Expects the key failed_lists, that set. `list` is the key of a failed list, and `name` the member
-- of failed_lists that stands for it, or "" when the set need not know of it.

local function misfit_to_fail(list, name) -- returns the key of a wrong type, if there is one
  if not fits(list, "list") then return list end
  if name ~= "" and not fits(failed_lists, "set") then return failed_lists end
end

local function fail(list, name, entry)
  redis.call("RPUSH", list, entry)
  if name ~= "" then redis.call("SADD", failed_lists, name) end
end
