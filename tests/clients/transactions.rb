# Publishes with redis-rb: ruby transactions.rb PORT
# Prints the replies to all publishes. Message 5 is in a transaction that the server must refuse.
require 'redis'

client = Redis.new(port: ARGV[0].to_i, db: 3, id: 'tester')
replies = client.multi { |multi| [1, 2].each { |message| multi.publish('c', message) } }
replies += client.pipelined { |pipeline| pipeline.publish('c', 3) }
replies += client.watch('key') { client.multi { |multi| multi.publish('c', 4) } }
begin
  client.multi do |multi|
    multi.publish('c', 5)
    multi.call([:nosuch])
  end
  raise 'a refused transaction raises no error'
rescue Redis::CommandError => error
  raise unless error.message.include?('unknown command')
end
replies << client.publish('c', 6)
raise 'the role differs' unless client.info['role'] == 'master'
puts replies.join(' ')
