-- A payload as other clients may read it. The record is a shadow for them, and they parse it: only
-- a payload that is JSON goes in as it is. Above 4 KB the check would cost more than the job; there
-- the shape must do.
local function is_utf8(raw)
  local rest = string.gsub(raw, "[\194-\223][\128-\191]", "")
  rest = string.gsub(rest, "[\224-\239][\128-\191][\128-\191]", "")
  rest = string.gsub(rest, "[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  return not string.find(rest, "[\128-\255]")
end

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
  if fine and string.find(raw, "[\128-\255]") then fine = is_utf8(raw) end
  return fine and raw or '{"class":"(unreadable payload)","args":[]}'
end
