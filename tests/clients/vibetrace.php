<?php
// php vibetrace.php BASE ACCOUNT: the two examples of the vendor's page, with its own requests.
// file_get_contents stands for curl_exec, which Debian packs separately.
[, $base, $account] = $argv;

function send_event(string $base, string $account, string $type, array $event): void
{
    $params = array(
        "data" => json_encode(array($event)),
        "callback" => 'vt',
        "ts" => rand(0, 1000),
    );
    $url = "$base/event/$account/$type" . '?' . http_build_query($params);
    $answer = file_get_contents($url);
    if ($answer === false) {
        fwrite(STDERR, "no answer to $url\n");
        exit(1);
    }
    echo $answer, "\n";
}

$items = array(
    array("id" => "123123-M", "quantity" => 2),
    array("id" => "23423-XL", "quantity" => 1),
);
$confirmation = array(
    "userId" => "0111", "sessionId" => "013123", "type" => 'confirmation', "items" => $items,
    "generic" => array("orderId" => "order/1 é", "total" => 234.12, "email" => "jane@example.com"),
);
send_event($base, $account, "confirmation", $confirmation);
send_event($base, $account, "login",
    array("type" => 'login', "email" => "jane@example.com", "source" => "source_type"));
