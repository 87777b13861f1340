-- Sends prepared requests in their order, over and over; reports in one line of JSON.
-- Arguments: the file of requests, each behind a line with its length; a pause in milliseconds.
local requests, position = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  for length in function() return file:read("*l") end do
    requests[#requests + 1] = file:read(tonumber(length))
  end
  file:close()
  local pause = tonumber(arguments[2])
  -- Only its being there makes wrk go through a timer before each request.
  if pause > 0 then
    -- About that long: connections that wait alike would all come at once.
    function delay() return math.random(pause / 2, pause * 3 / 2) end
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
