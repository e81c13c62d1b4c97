<?php
// Publishes with phpredis or Predis: php transactions.php PORT LIBRARY
// Prints the replies to all publishes. Message 5 is in a transaction that the server must refuse.

[$_, $port, $library] = $argv;

function phpredis(int $port): array
{
    $client = new Redis();
    $client->connect('127.0.0.1', $port);
    $client->select(3);
    $client->client('setname', 'tester');
    $replies = $client->multi()->publish('c', '1')->publish('c', '2')->exec();
    array_push($replies, ...$client->multi(Redis::PIPELINE)->publish('c', '3')->exec());
    $client->watch('key');
    array_push($replies, ...$client->multi()->publish('c', '4')->exec());
    assert($client->role()[0] === 'master' && $client->info()['loading'] == 0);
    foreach ([['MULTI'], ['PUBLISH', 'c', '5'], ['NOSUCH'], ['EXEC']] as $command) {
        $error = null;
        try {
            $client->rawCommand(...$command);
        } catch (RedisException $exception) {
            $error = $exception->getMessage();
        }
    }
    assert(str_starts_with($error, 'EXECABORT'));
    $replies[] = $client->publish('c', '6');
    return $replies;
}

function predis(int $port): array
{
    require_once 'Predis/Autoloader.php';
    Predis\Autoloader::register();
    $client = new Predis\Client(['port' => $port, 'database' => 3]);
    $replies = $client->transaction()->publish('c', '1')->publish('c', '2')->execute();
    array_push($replies, ...$client->pipeline()->publish('c', '3')->execute());
    array_push($replies, ...$client->pipeline(['atomic' => true])->publish('c', '4')->execute());
    $client->multi();
    $client->publish('c', '5');
    $client->executeRaw(['NOSUCH']);
    assert(str_starts_with($client->executeRaw(['EXEC']), 'EXECABORT'));
    $replies[] = $client->publish('c', '6');
    return $replies;
}

echo implode(' ', $library((int) $port)), "\n";
