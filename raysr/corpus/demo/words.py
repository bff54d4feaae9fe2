"""The words of the demo corpus: what fills a sentence frame, and the names that labels never show.

Of people, places and projects, half are *open*: they occur in unlabelled, dev and test audio but in no
labelled transcript, as the names of a real team do.
"""


def _list(items: str) -> list[str]:
    return items.split(", ")


KNOWN_NAMES = {
    "person": _list(
        "adam, alice, carlos, daniel, emma, george, hannah, helen, ivan, julia, kevin, laura, martin, "
        "monica, oliver, peter, rebecca, robert, simon, sophie, thomas, victor, walter, yuki"
    ),
    "place": _list(
        "berlin, boston, chicago, dublin, geneva, lisbon, london, madrid, milan, oslo, paris, prague, "
        "toronto, vienna, warsaw, zurich"
    ),
    "project": _list("atlas, comet, falcon, harbour, lantern, mercury, orchid, saturn"),
}

OPEN_NAMES = {
    "person": _list(
        "abigail, amir, bernard, camilla, dimitri, eleanor, fernando, gabriel, ingrid, jasmine, leonard, "
        "lucia, magnus, natalia, nicholas, olga, patrick, priya, rosalind, samantha, stefan, tobias, "
        "vanessa, william"
    ),
    "place": _list(
        "amsterdam, athens, barcelona, bristol, cairo, denver, glasgow, helsinki, istanbul, jakarta, "
        "montreal, nairobi, sydney, tokyo, valencia, venice"
    ),
    "project": _list("bluebird, cobalt, everest, juniper, magnolia, pegasus, tornado, willow"),
}

SLOTS = {
    "opener": _list("okay, so, well, right, actually, i think, as far as i know, to be honest"),
    "team": _list(
        "finance, marketing, support, design, research, security, legal, sales, hardware, platform, "
        "training, quality"
    ),
    "document": _list(
        "report, contract, proposal, budget, agenda, invoice, summary, schedule, survey, presentation, "
        "recording, checklist, transcript, diagram"
    ),
    "thing": _list(
        "server, database, printer, microphone, website, backup, network, camera, dashboard, projector, "
        "prototype, battery, keyboard, payment system"
    ),
    "topic": _list(
        "hiring, travel costs, customer feedback, the new office, the release, privacy, the training "
        "data, salaries, the holiday calendar, accessibility, the test results, energy use, next year's "
        "plan"
    ),
    "customer": _list(
        "bank, hospital, airline, university, museum, factory, newspaper, library, hotel, city council"
    ),
    "day": _list("monday, tuesday, wednesday, thursday, friday, saturday"),
    "month": _list("january, march, april, june, september, october, november"),
    "when": _list(
        "today, tomorrow, this afternoon, next week, after lunch, before the weekend, early on {day}, on "
        "{day}, by the end of {month}, in {month}, at {hour}, on {day} morning"
    ),
    "hour": _list("nine, ten, eleven, noon, two, three, half past four, quarter to five"),
    "number": _list(
        "two, three, four, five, six, seven, eight, twelve, fifteen, twenty, thirty, forty, fifty"
    ),
    "amount": _list(
        "{number} percent, {number} hundred euros, {number} thousand dollars, about {number} hours, at "
        "least {number} days, nearly {number} weeks"
    ),
    "quality": _list(
        "too slow, quite good, rather expensive, not ready, almost finished, very helpful, much better, "
        "out of date, hard to read, surprisingly cheap, a bit confusing, completely broken"
    ),
    "act": _list(
        "check, review, rewrite, finish, print, translate, approve, cancel, share, update, sign, forward"
    ),
    "mend": _list("repair, replace, restart, move, test, clean, order, unplug, upgrade"),
    "travel": _list("the early train, the night bus, a taxi, the last flight, the ferry, my bicycle"),
    "room": _list(
        "the kitchen, the main hall, the small room, the lobby, the garden, the reading room, the lab, "
        "the basement"
    ),
    "food": _list("coffee, sandwiches, fresh fruit, pizza, tea and biscuits, soup, cold water, breakfast"),
    "because": _list(
        "because the {thing} failed, since {person} is away, because nobody answered, as we agreed "
        "{when}, if there is enough time, unless {person} objects, so that the {team} team can start"
    ),
}
