r"""Put photos with what was found on them into a folder that a browser opens, to be corrected.

yolox-ray review --table s3://bucket/labels --run night --output review
yolox-ray review --table labels --output dogs \
    --sql "FROM latest_detections WHERE class_name = 'dog' AND score < 0.5"

The folder's index.html needs no server and no network. It shows up to --max_photos photos, a
slider for the score, and each photo large, with keys to accept, reject and correct it. What was
decided stays in the browser and is saved as corrections.json. Exit code 2: nothing was written.
"""

from jobs.cli import exit_on_input_error, parse
from pipelines import cluster, review


@exit_on_input_error
def main() -> None:
    written = review.write_review(parse(review.ReviewConfig, __doc__))
    without = f", {written.failed:,} of them without a picture" if written.failed else ""
    print(f"{written.photos:,} of {written.drawn_from:,} photos{without}: {written.page}")


if __name__ == "__main__":
    main()
    cluster.leave_local()
