<?php
// The shop's server says that an order was placed, in one of the three ways of Vibetrace's page.
$collect = getenv('COLLECT');
$event = array(
    'type' => 'confirmation',
    'items' => array(array('id' => '123123-M', 'quantity' => 2)),
    'generic' => array('orderId' => 'order-' . $_POST['way'], 'total' => 234.12),
);
if ($_POST['way'] === 'cookie') {
    list($event['userId'], $event['sessionId']) = explode('_', $_COOKIE['_vt_user']);
} elseif ($_POST['way'] === 'email') {
    $event['email'] = $_POST['email'];
} elseif ($_POST['way'] === 'vtsid') {
    $event['_vtsid'] = $_POST['vtsid'];
}
$params = array('data' => json_encode(array($event)), 'callback' => 'vt', 'ts' => rand(0, 1000));
$account = rawurlencode($_POST['account']);
header('Content-Type: text/plain');
echo file_get_contents("$collect/event/$account/confirmation?" . http_build_query($params));
