<?php
// A shop's page. The policy is as strict as it gets: the collector's script and requests to it, and
// nothing else; what the page itself runs has a nonce.
$collect = getenv('COLLECT');
$origin = preg_replace('~^(https?://[^/]+).*~', '$1', $collect);
$early = $_GET['early'] ?? '';
$from = isset($_GET['src']) ? "'self'" : $origin;
header("Content-Security-Policy: default-src 'none'; img-src data:; connect-src $from;"
    . " script-src $from 'nonce-own'; form-action 'self'; require-trusted-types-for 'script'");
$attributes = '';
foreach ($_GET as $name => $value) {
    if (str_starts_with($name, 'data-')) {
        $attributes .= ' ' . $name . '="' . htmlspecialchars($value) . '"';
    }
}
?><!doctype html>
<html><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>Shop é</title>
<?php if ($early !== '') { ?><script nonce="own"><?= $early ?></script>
<?php } ?>
<script async src="<?= htmlspecialchars($_GET['src'] ?? "$collect/headwater.js") ?>"<?= $attributes ?>></script>
</head><body>
<form id="order" method="post" action="order.php">
  <input type="hidden" name="way" value="<?= htmlspecialchars($_GET['way'] ?? '') ?>">
  <input type="hidden" name="account" value="<?= htmlspecialchars($_GET['data-account'] ?? '') ?>">
  <input type="hidden" name="email" value="<?= htmlspecialchars($_GET['email'] ?? '') ?>">
  <input type="hidden" name="vtsid" value="">
  <button>Order</button>
</form>
<form id="lead" method="post" action="lead.php"><button>Ask</button></form>
</body></html>
