# frozen_string_literal: true

# Sidekiq's workers, for `sidekiq -r`, and its producer; see producing.py for its four words.

require "json"
require "sidekiq"
require_relative "kinds"

Sidekiq.configure_server { |config| config.redis = { url: ENV.fetch("BENCH_REDIS") } }
Sidekiq.configure_client { |config| config.redis = { url: ENV.fetch("BENCH_REDIS"), size: 1 } }
Sidekiq.logger.level = Logger::WARN # else it logs two lines a job

WORKERS = Kinds::NAMES.to_h do |name|
  worker = Class.new do
    include Sidekiq::Worker
    sidekiq_options queue: Kinds::QUEUE
    define_method(:perform) { |number| Kinds.public_send(name, number) }
  end
  [name, Object.const_set(name.capitalize, worker)]
end

def clocks = [Process::CLOCK_MONOTONIC, Process::CLOCK_PROCESS_CPUTIME_ID].map { Process.clock_gettime(_1) }

def put_now(worker, numbers, how)
  worker.perform_async(numbers.first)
  began = clocks
  if how == "bulk"
    worker.perform_bulk(numbers.drop(1).map { [_1] })
  else
    numbers.drop(1).each { worker.perform_async(_1) }
  end
  seconds, cpu = clocks.zip(began).map { |now, before| now - before }
  puts JSON.generate(jobs: numbers.size - 1, seconds:, cpu:)
end

def put_slowly(worker, numbers, pause)
  numbers.each do |number|
    Kinds.record(Kinds::SENT, number)
    worker.perform_async(number)
    sleep(pause)
  end
end

if $PROGRAM_NAME == __FILE__
  kind, count, first, how = ARGV
  numbers = (first.to_i...first.to_i + count.to_i).to_a
  if %w[one bulk].include?(how)
    put_now(WORKERS.fetch(kind), numbers, how)
  else
    put_slowly(WORKERS.fetch(kind), numbers, Float(how))
  end
end
