# Publishes with Redis or Redis::Fast: perl transactions.pl PORT LIBRARY
# Prints the replies to all publishes. Message 5 is in a transaction that the server must refuse.
use strict;
use warnings;

my ($port, $library) = @ARGV;
eval "require $library" or die $@;
my $client = $library->new(server => "127.0.0.1:$port", name => 'tester', reconnect => 1);
$client->select(3);
$client->multi;
$client->publish('c', $_) for 1, 2;
my @replies = $client->exec;
# Without waiting for the reply.
$client->publish('c', 3, sub { push @replies, $_[0] });
$client->wait_all_responses;
$client->watch('key');
$client->multi;
$client->publish('c', 4);
push @replies, $client->exec;
$client->multi;
$client->publish('c', 5);
eval { $client->nosuch };
eval { $client->exec };
die "a refused transaction raises $@" unless $@ =~ /EXECABORT/;
push @replies, $client->publish('c', 6);
die 'INFO lacks the role' unless $client->info->{role} eq 'master';
print "@replies\n";
