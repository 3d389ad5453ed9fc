-- What a slot holds: the token, the length of the queue's name, the name and the bytes.
local function held_job(held)
  local size, from = string.match(held, "^[^\n]*\n(%d+)\n()")
  return string.sub(held, from, from + size - 1), string.sub(held, from + size)
end
