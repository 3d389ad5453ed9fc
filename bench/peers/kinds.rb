# frozen_string_literal: true

# The jobs that all contestants run, for Ruby. See kinds.py, whose numbers these are, and
# recording.py, whose files these write.
#
#     ruby bench/peers/kinds.rb calibrate          prints the loops that take about 5 ms here
#     ruby bench/peers/kinds.rb alone LOOPS COUNT  prints the seconds one such job takes, alone
module Kinds
  QUEUE = "bench"
  SENT, BEGAN, ENDED = 1, 2, 3
  LOOPS = Integer(ENV.fetch("BENCH_LOOPS", "50000"))
  CPU_SECONDS, IO_SECONDS, STORM_SECONDS, LONG_SECONDS = 0.005, 0.05, 0.02, 2.0
  HEAVY = ENV["BENCH_HEAVY"] ? (0...400_000).to_h { |n| ["key-#{n}", [n, "value-#{n}"]] } : {}
  NAMES = %w[noop cpu io storm long read].freeze

  module_function

  def record(event, number)
    moment = Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)
    @file ||= open_file
    @file.syswrite([event << 56 | number, moment].pack("Q<2"))
  end

  def open_file
    path = File.join(ENV.fetch("BENCH_DIR"), Process.pid.to_s)
    File.open(path, File::WRONLY | File::APPEND | File::CREAT, 0o600)
  end

  def spin(loops)
    total = each = 0
    while each < loops
      total = (total + each * each) & 0xFFFF
      each += 1
    end
    total
  end

  def noop(number) = record(BEGAN, number)

  def cpu(number)
    record(BEGAN, number)
    spin(LOOPS)
  end

  def io(number)
    record(BEGAN, number)
    sleep(IO_SECONDS)
  end

  def storm(number) = lasting(number, STORM_SECONDS)

  def long(number) = lasting(number, LONG_SECONDS)

  def read(number)
    record(BEGAN, number)
    HEAVY.each_value.sum { |_, text| text.length }
  end

  def lasting(number, seconds)
    record(BEGAN, number)
    sleep(seconds)
    record(ENDED, number)
  end

  def alone(loops, count)
    taken = Array.new(count) do
      began = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      spin(loops)
      Process.clock_gettime(Process::CLOCK_MONOTONIC) - began
    end
    best = taken.min((count + 1) / 2)
    best.sum / best.size
  end

  def calibrate = (LOOPS * CPU_SECONDS / alone(LOOPS, 20)).round
end

if $PROGRAM_NAME == __FILE__
  what, loops, count = ARGV
  puts what == "calibrate" ? Kinds.calibrate : Kinds.alone(Integer(loops), Integer(count))
end
